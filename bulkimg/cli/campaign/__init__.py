"""Commands on a campaign. Imported only where a job or RUN has several targets: most runs have one."""
