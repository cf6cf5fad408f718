"""What watches iterpo from outside: alert rules, a Prometheus to read them, dashboards for Grafana."""
