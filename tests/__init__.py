"""What proves it: a folder for each part of the source, and system/ for the whole."""
