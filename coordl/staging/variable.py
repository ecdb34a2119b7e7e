"""The environment variable that names a group for a whole script."""

VARIABLE = "COORDL_GROUP"
