from dmlbench.cli.main import main

main()
