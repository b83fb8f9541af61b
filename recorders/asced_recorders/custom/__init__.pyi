from .loop import CustomRecorder as CustomRecorder
