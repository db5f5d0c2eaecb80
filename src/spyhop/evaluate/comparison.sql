-- Two tables of log rows, `first_rows` and `second_rows`, to pairs of items and their counts.

CREATE TABLE items AS
SELECT side, task, item, avg(value) AS value, min(prompt) AS prompt, any_value(topic) AS topic,
    any_value(passage) AS passage, avg(question) AS question, avg(response) AS response,
    min(place) AS place, count(*) AS num_rows, count(*) - count(DISTINCT sample) AS duplicates,
    count(*) - count(value) AS missing
FROM (
    SELECT 'first' AS side, * REPLACE (task::VARCHAR AS task, topic::VARCHAR AS topic,
        passage::VARCHAR AS passage) FROM first_rows
    UNION ALL
    SELECT 'second', * REPLACE (task::VARCHAR AS task, topic::VARCHAR AS topic,
        passage::VARCHAR AS passage) FROM second_rows
) GROUP BY side, task, item;

CREATE TABLE pairs AS
SELECT a.task, a.item, a.value AS first, b.value AS second, a.place AS first_place,
    b.place AS second_place, a.prompt > 0 AND b.prompt > 0 AND a.prompt <> b.prompt AS is_other,
    coalesce(nullif(a.topic, ''), b.topic) AS topic, a.passage AS passage,
    (a.question + b.question) / 2 AS question, (a.response + b.response) / 2 AS response
FROM (FROM items WHERE side = 'first') a JOIN (FROM items WHERE side = 'second') b
USING (task, item);

CREATE VIEW counts AS
SELECT side, sum(num_rows)::BIGINT AS rows, count(*) AS items,
    count(*) - (SELECT count(*) FROM pairs) AS unmatched,
    sum(duplicates)::BIGINT AS duplicates, sum(missing)::BIGINT AS missing
FROM items GROUP BY side;

CREATE VIEW about AS
SELECT count(*) AS matched, count(*) FILTER (is_other) AS other_prompts,
    count(*) FILTER (first IS NULL OR second IS NULL) AS missing,
    CASE WHEN max(response) > 0 THEN 'response' ELSE 'question' END AS length_of
FROM pairs;

-- Common items and the larger number of items, by task.
CREATE VIEW shares AS
SELECT task, (SELECT count(*) FROM pairs WHERE pairs.task = sides.task) AS matched, max(num) AS most
FROM (SELECT side, task, count(*) AS num FROM items GROUP BY side, task) sides
GROUP BY task ORDER BY task;

CREATE VIEW scored AS
WITH lengths AS (
    SELECT *, CASE length_of WHEN 'response' THEN response ELSE question END AS length
    FROM (SELECT * EXCLUDE (missing) FROM pairs, about)
    WHERE first IS NOT NULL AND second IS NOT NULL
), edges AS (SELECT quantile_disc(length, [0.25, 0.5, 0.75]) AS edge FROM lengths)
SELECT task, topic, passage, first, second, length, (length > edge[1])::INT
    + (length > edge[2])::INT + (length > edge[3])::INT AS length_band
FROM lengths, edges;

CREATE MACRO disagreements(num_rows) AS TABLE
SELECT task, first AS first_value, second AS second_value, first_place AS one, second_place AS two
FROM pairs WHERE first <> second
QUALIFY row_number() OVER (PARTITION BY task, first > second ORDER BY item) <= num_rows
ORDER BY task, first > second, item;
