"""Every error that facestream raises on purpose.

A message is one line that says what went wrong, where, and what to do next. It never holds a credential: text that
may contain a URL passes through :func:`worker.redaction.redact` first.
"""

from typing import ClassVar


class FacestreamError(Exception):
    """Base of all expected errors; ``exit_code`` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class ConfigError(FacestreamError):
    """Arguments or configuration are wrong in themselves: no file, camera or server was needed to see it."""

    exit_code = 2


class SourceError(FacestreamError):
    """A camera, a video file or a photo cannot be opened, read or decoded."""


class ModelError(FacestreamError):
    """A model, its manifest or its weights are missing, damaged or of no use here."""


class OutputError(FacestreamError):
    """A file that was asked for (a picture, a plot, a clip, a report, an export) cannot be written."""


class GalleryError(FacestreamError):
    """A gallery is missing, damaged, or made with another model."""


class GalleryExistsError(GalleryError):
    """A gallery cannot be made where there is one already."""


class GalleryUnavailableError(GalleryError):
    """A gallery that a fleet shares cannot be reached now. The copy in memory can still be searched."""


class ErasureError(FacestreamError):
    """Somebody cannot be erased everywhere, or the list of those who were erased is damaged."""


class AuditError(FacestreamError):
    """The audit log cannot be read or written."""


class ClassifierError(FacestreamError):
    """A trained classifier is missing, damaged, made with another model, or cannot be written."""


class EncryptionError(FacestreamError):
    """Something is encrypted, and its key is missing or is another one. Nothing was changed."""


class FleetError(FacestreamError):
    """A fleet has no camera or worker of that name, or has it already."""


class SinkError(FacestreamError):
    """Events cannot be delivered, or the event stream cannot be read."""


class SinkBusyError(SinkError):
    """Redis answers, and says that it cannot serve for now; this passes by itself."""


class DatabaseError(FacestreamError):
    """A database refuses, is damaged, or has another layout than this version of the program reads."""


class DatabaseUnavailableError(DatabaseError):
    """A database cannot be reached, or cannot serve now; this may pass."""


class DatabaseFullError(DatabaseUnavailableError):
    """The disk of a database is full or fails; this may pass."""


class DatabaseValueError(DatabaseError):
    """A value can never be stored. What was stored before stays as it was."""


class HistoryError(FacestreamError):
    """The record of past sightings is missing, damaged or cannot be reached."""


class HistoryValueError(HistoryError):
    """A record of the past holds a value that can never be stored. What was stored before stays as it was."""


class HistoryUnavailableError(HistoryError):
    """The database that holds the record of past sightings cannot be reached or used now; this may pass."""


class HistoryDiskError(HistoryUnavailableError):
    """The disk that holds the record of past sightings is full or fails; this may pass."""
