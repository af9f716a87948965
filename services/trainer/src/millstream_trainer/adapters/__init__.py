"""One file per technology. Importing this package imports none of them."""
