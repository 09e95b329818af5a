"""Backups: one snapshot of the database, and the files of the store that it refers to."""


class BackupError(Exception):
    """A backup or a restore failed. The message is one line with the problem and the remedy."""
