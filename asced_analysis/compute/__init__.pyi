from .workers import local_cluster as local_cluster
