"""One model as a service: a page and programs' requests, over HTTP."""
