"""The text halves of models in numpy: no torch, weights where they lie in a mapped file.

arithmetic    what transformers are made of
clip          open_clip's own text transformer in all its forms: CLIP, SigLIP, MobileCLIP2, CLIPA, CoCa
"""
