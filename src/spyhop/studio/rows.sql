{# Queries on the rows of an artifact. Names come from its schema, values are parameters. #}
{% macro quoted(name) %}"{{ name|replace('"', '""') }}"{% endmacro %}

{% macro where(query, columns) %}
WHERE true
{% for name, wanted in query.facets.items() %}
AND ({{ columns[name].sql }}::VARCHAR IN (SELECT unnest($is_{{ loop.index0 }}::VARCHAR[]))
{% if none in wanted %}OR {{ columns[name].sql }} IS NULL{% endif %})
{% endfor %}
{% for name in query.ranges %}
AND {{ columns[name].sql }} >= $low_{{ loop.index0 }} AND {{ columns[name].sql }} < $high_{{ loop.index0 }}
{% endfor %}
{% if query.text %}
AND (false{% for each in columns.values() if each.searched %} OR regexp_matches({{ each.searched }}, $text){% endfor %})
{% endif %}
{% endmacro %}

{% macro previews(columns, top) %}
SELECT {% for name in top %}{{ columns[name].preview }} AS {{ quoted(name) }}, {% endfor %}
file_index::INT AS " part", file_row_number AS " row" FROM read_parquet($files)
{% endmacro %}

{# Rows in the order of the files, after or before a row of the first file. #}
{% macro scan(query, columns, top, has_row, is_back) %}
{{ previews(columns, top) }} {{ where(query, columns) }}
{% if has_row %}AND (file_index > 0 OR file_row_number {{ "<" if is_back else ">" }} $row){% endif %}
ORDER BY file_index, file_row_number {{ "DESC" if is_back }} LIMIT $limit
{% endmacro %}

{# Positions in the order of a column, missing values last, after or before a row. #}
{% macro sorted(query, columns, has_row, has_key, is_back) %}
{% set key, falling = columns[query.sort].sql, query.is_descending != is_back %}
{% set place = "(file_index, file_row_number) " ~ ("<" if is_back else ">") ~ " ($part, $row)" %}
{% set order = "DESC" if is_back else "ASC" %}
SELECT file_index::INT, file_row_number FROM read_parquet($files) {{ where(query, columns) }}
{% if has_row and has_key %}
AND ({{ key }} {{ "<" if falling else ">" }} $key OR ({{ key }} = $key AND {{ place }}){% if not is_back %} OR {{ key }} IS NULL{% endif %})
{% elif has_row %}
AND (({{ key }} IS NULL AND {{ place }}){% if is_back %} OR {{ key }} IS NOT NULL{% endif %})
{% endif %}
ORDER BY {{ key }} {{ "DESC" if falling else "ASC" }} NULLS {{ "FIRST" if is_back else "LAST" }},
file_index {{ order }}, file_row_number {{ order }} LIMIT $limit
{% endmacro %}

{# Rows by value of each key; the group without a key is all rows. #}
{% macro grouped(query, columns, keys, has_total) %}
SELECT {% for name in keys %}k{{ loop.index0 }}, grouping(k{{ loop.index0 }}) AS g{{ loop.index0 }}, {% endfor %}count(*) AS n
FROM (SELECT {% for sql in keys.values() %}{{ sql }} AS k{{ loop.index0 }}, {% endfor %}1 FROM read_parquet($files) {{ where(query, columns) }})
GROUP BY GROUPING SETS ({% for name in keys %}(k{{ loop.index0 }}){{ ", " if not loop.last or has_total }}{% endfor %}{{ "()" if has_total }})
ORDER BY n DESC
{% endmacro %}

{# The number of values of each column of text in the first rows. #}
{% macro distinct(columns) %}
SELECT {% for each in columns %}approx_count_distinct({{ each.sql }}) AS {{ quoted(each.name) }}, {% endfor %}
FROM (FROM read_parquet($files) LIMIT 20000)
{% endmacro %}

{# The least and the greatest finite value of each column of numbers, as a list. #}
{% macro ends(columns) %}
SELECT {% for each in columns %}{% set sql = "CASE WHEN isfinite(" ~ each.sql ~ "::DOUBLE) THEN " ~ each.sql ~ " END" %}
[min({{ sql }})::DOUBLE, max({{ sql }})::DOUBLE] AS {{ quoted(each.name) }}, {% endfor %} FROM read_parquet($files)
{% endmacro %}

{# The number of the range that a value is in. #}
{% macro bin(sql, low, width, num) %}
CASE WHEN isfinite({{ sql }}::DOUBLE) THEN least(floor(({{ sql }} - ({{ low }})) / {{ width }}), {{ num - 1 }})::INT END
{% endmacro %}
