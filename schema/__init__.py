"""What the outside sees: GraphQL types, inputs, enums, error codes, connections and limits.

Nothing here knows a resolver, a row or the database. A nested field asks `info.context.load`, which
the resolvers implement with permissions and batching.
"""
