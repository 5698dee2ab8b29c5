"""Networks that several stages use, and the device they run on."""
