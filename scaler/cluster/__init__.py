"""The Kubernetes cluster: reading and writing what is scaled."""
