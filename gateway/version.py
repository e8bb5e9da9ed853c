"""The release's number, alone in its module so that every floor may name it."""

VERSION = "0.1.0"
