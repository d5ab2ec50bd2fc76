"""Write the files that start a job at its times: systemd units, a line for cron, a Kubernetes CronJob."""
