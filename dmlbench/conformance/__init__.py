"""What every loss must do, whatever it computes: the checks of `dmlbench check`."""
