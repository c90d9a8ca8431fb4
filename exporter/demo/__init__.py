"""The whole at work on one machine: simulated servers, the exporter, Prometheus, Alertmanager, Grafana.

Every program is a child of this process; what they write is in one directory, which goes with the demo.
"""
