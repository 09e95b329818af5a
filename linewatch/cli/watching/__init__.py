"""`linewatch watch`: takes the images that cameras write into a folder."""
