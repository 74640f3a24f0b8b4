"""One module per array library, each with the functions of :mod:`logitlab._backends.reference`."""
