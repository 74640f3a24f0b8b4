"""One module per kind of array, each with the functions of :mod:`logitlab._backends.reference`."""
