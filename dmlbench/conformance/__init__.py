"""The checks of `dmlbench check`: what every loss must do, whatever it computes."""
