"""Files on disks and in object stores: atomic writes, locks, downloads, checksums, tars."""
