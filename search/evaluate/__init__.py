"""How good the answers of a library are, measured on the library itself."""
