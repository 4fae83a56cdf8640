"""Photos decoded in child processes: whatever a file does to its decoder, the run goes on.

    budget    how many children there are by default
    pool      Decoders: gives files to children, limits them, replaces the one that failed
    worker    the child: one file after another, nothing of the library in its memory
    wire      what they say to each other, checked word by word

Image decoders are large, written in C and fed by strangers: they hang, crash and take all the memory there is. Every
file is decoded in a child, whatever its format: children are as fast as threads, but for pictures of stamp size, where
a tenth is lost (bench/decoding.py), and no format has a clean enough record to be worth a second path.

Import from the modules: nothing is loaded here, so that a child gets by with little.
"""
