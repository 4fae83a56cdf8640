"""Photos: from a folder on disk to upright RGB pixels, and what each file says of itself.

    scan         the walk: which files there are; opens none of them, imports no image library
    decode       one file -> upright RGB pixels, PhotoInfo and content hash; the only door to Pillow's opener
    metadata     EXIF, XMP, IPTC and a sidecar -> the fields of PhotoInfo; with it xmp, keywords, sidecars
    thumbnails   one file -> a small JPEG that carries nothing but pixels

Import from the modules: nothing is loaded here, so that the walk stays free of Pillow.
"""
