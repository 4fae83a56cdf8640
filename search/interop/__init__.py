"""Photos and vectors of other software, read where they are, and a library's own in the layouts that others read.

    rclip            its SQLite file
    clip_retrieval   a folder of embeddings and metadata; an index over them
    immich           a dump of its database, or the database
    webdataset       tar files of pictures
    tables           photos as CSV or Parquet

What reads gives a `search.adoption.Source` and never writes to what it reads.
"""
