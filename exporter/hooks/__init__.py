"""What others send to the exporter: alerts of an Alertmanager, and hints of CI servers."""
