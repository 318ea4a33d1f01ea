"""Pure decisions: no I/O, no asyncio, no clock. Everything here is a function of its arguments."""
