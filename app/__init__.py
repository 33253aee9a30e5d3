"""The outermost layer: settings, the ASGI application, the command line, the development stack."""
