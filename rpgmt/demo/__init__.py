"""A local web page on which a trained model is tried: the standard library's server, one page, no files written."""
