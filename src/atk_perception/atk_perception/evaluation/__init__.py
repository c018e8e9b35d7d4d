"""How well points are tracked and transferred: held-out sequences, labelled real video, metrics, report."""
