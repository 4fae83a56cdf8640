"""Photos: from a folder on disk to upright RGB pixels, and what each file says of itself.

    sources      where photos lie: folders, tar files (tars), object_storage; what lists and reads them there
    scan         the walk of a folder: which files there are (suffixes); opens none, imports no image library
    decode       one file -> upright RGB pixels, PhotoInfo and content hash; with it opening, raw, colour, versions
    metadata     EXIF, XMP, IPTC and a sidecar -> the fields of PhotoInfo; with it xmp, keywords, sidecars
    packets      keywords written into an XMP packet and taken out again; with it markup
    likeness     whether two files show the same picture
    thumbnails   one file -> a small picture that carries nothing but pixels; pixels are pictures in memory

Import from the modules: nothing is loaded here, so that the walk stays free of Pillow.
"""
