"""Labels, features, splits and the files that hold them."""
