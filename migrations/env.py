"""Alembic's entry: it migrates over the connection that search.catalog.versions hands in."""

from alembic import context

from search.catalog.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
