"""Pages that open from the disk: of a data set (`alexnet-prep show`), of a run (`report.html`), of a benchmark."""
