"""The HTTP API: a table of routes as data, one gate before all of them, one file per resource."""
