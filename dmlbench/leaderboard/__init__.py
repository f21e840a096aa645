"""Tables, pages and plots from the results of a study."""
