//! What tells that definitions in a database have changed.
//!
//! A row of a catalog has in `xmin` who wrote it last, so that a sum over these changes with each
//! definition, and with nothing else: what is written in place, as by `ANALYZE`, leaves it. Only of
//! `pg_class` columns are taken, as emptying a table or refreshing a view gives it other files.
//! Temporary tables and what belongs to them count for nothing.

/// Publications that Kiln makes begin so.
pub(super) const OWN: &str = "kiln_";

/// Catalogs of which every row counts.
const PLAIN: [&str; 27] = [
    "pg_aggregate",
    "pg_auth_members",
    "pg_authid",
    "pg_cast",
    "pg_collation",
    "pg_conversion",
    "pg_db_role_setting",
    "pg_default_acl",
    "pg_enum",
    "pg_event_trigger",
    "pg_extension",
    "pg_foreign_data_wrapper",
    "pg_foreign_server",
    "pg_foreign_table",
    "pg_language",
    "pg_largeobject_metadata",
    "pg_opclass",
    "pg_operator",
    "pg_opfamily",
    "pg_partitioned_table",
    "pg_policy",
    "pg_proc",
    "pg_range",
    "pg_statistic_ext",
    "pg_ts_config",
    "pg_ts_dict",
    "pg_user_mapping",
];

/// Catalogs whose rows count unless they belong to a relation that does not, by the column that
/// names it.
const OF_RELATIONS: [(&str, &str); 8] = [
    ("pg_attrdef", "adrelid"),
    ("pg_attribute", "attrelid"),
    ("pg_constraint", "conrelid"),
    ("pg_index", "indrelid"),
    ("pg_inherits", "inhrelid"),
    ("pg_rewrite", "ev_class"),
    ("pg_sequence", "seqrelid"),
    ("pg_trigger", "tgrelid"),
];

/// Relations that count: those that are kept, and their indexes; not what holds their long values.
const RELATIONS: &str = "\
SELECT c.oid, c.relname, c.relnamespace, c.reltype, c.relowner, c.relam, c.relkind, \
    c.relpersistence, c.relacl, c.reloptions, c.relrowsecurity, c.relforcerowsecurity, \
    c.relispartition, c.relpartbound, c.reltablespace \
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
WHERE c.relpersistence <> 't' AND n.nspname <> 'pg_toast' AND n.nspname !~ '^pg_(toast_)?temp_'";

/// A query of one row and column.
pub(super) fn definitions() -> String {
    let sum = |of: &str, from: &str| {
        format!("(SELECT concat(count(*), ':', sum(hashtextextended({of}, 0)::numeric)) {from})")
    };
    let mut parts = vec![sum("c::text", "FROM relations c")];
    // Who wrote a row, and as which of his statements.
    let row = "concat(t.xmin, ' ', t.cmin)";
    parts.extend(PLAIN.map(|catalog| sum(row, &format!("FROM {catalog} t"))));
    parts.extend(OF_RELATIONS.map(|(catalog, column)| {
        let kept = format!("t.{column} = 0 OR t.{column} IN (SELECT oid FROM relations)");
        sum(row, &format!("FROM {catalog} t WHERE {kept}"))
    }));
    let named = "n.nspname !~ '^pg_(toast_)?temp_'";
    let namespaces = format!("FROM pg_namespace t, LATERAL (SELECT t.nspname) n WHERE {named}");
    parts.push(sum(row, &namespaces));
    parts.push(sum(
        row,
        &format!(
            "FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace \
             WHERE n.nspname <> 'pg_toast' AND {named}"
        ),
    ));
    parts.push(sum(row, &format!("FROM pg_publication t WHERE pubname !~ '^{OWN}'")));
    parts.push(sum(
        "concat(datname, datdba, datacl)",
        "FROM pg_database WHERE datname = current_database()",
    ));
    format!("WITH relations AS ({RELATIONS}) SELECT md5(concat_ws(' ', {}))", parts.join(", "))
}
