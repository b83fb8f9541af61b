from .writer import BatchWriter as BatchWriter
