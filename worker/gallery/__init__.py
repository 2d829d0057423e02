"""Who is known: people and their samples, kept in a folder or in a database, searched and changed.

What is open:

- ``gallery``: ``Gallery``, an open gallery wherever it is kept. Most code needs only this one.
- ``opening``: opens or makes the gallery at an address, a folder or a URL; a re-embedded gallery takes the place of the
  old one, or the old one comes back.
- ``folder``: ``FolderGallery``, a gallery in a folder or in memory, and its files.
- ``database``: ``DatabaseGallery``, a gallery in PostgreSQL that the workers of a fleet share.
- ``classifier``: a classifier trained on one's own people, which takes the place of a gallery.

What is inside:

- ``contents``: what one version holds (``Person``, ``Sample``, thresholds), and how two versions differ.
- ``index``: search for the nearest person; the only user of FAISS.
- ``snapshots``: versions of a set of files, each written as a whole and checked by digest.
- ``crops``: the faces that were kept at enrolment, encrypted if there is a key.

What is done with it:

- ``enrolment``: photos become people.
- ``re_embedding``: everybody's vectors are made again, with another model.
"""
