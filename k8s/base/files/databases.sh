#!/bin/sh
# Run once, when PostgreSQL's data folder is new: a role and a database for each server. Passwords come from
# the environment and are quoted by psql.
set -eu
psql --username=postgres --dbname=postgres --no-psqlrc --quiet --set=ON_ERROR_STOP=1 \
	--set=mlflow="$MLFLOW_PASSWORD" --set=prefect="$PREFECT_PASSWORD" <<-'SQL'
	CREATE ROLE mlflow LOGIN PASSWORD :'mlflow';
	CREATE ROLE prefect LOGIN PASSWORD :'prefect';
	CREATE DATABASE mlflow OWNER mlflow;
	CREATE DATABASE prefect OWNER prefect;
	REVOKE CONNECT ON DATABASE mlflow FROM PUBLIC;
	REVOKE CONNECT ON DATABASE prefect FROM PUBLIC;
SQL
