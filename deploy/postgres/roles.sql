-- Four roles with the least rights that each needs. Run it as the owner of the tables, again after each upgrade:
--   psql -d site -f roles.sql
-- Then let a user have one of them: GRANT facestream_worker TO alice;

DO $$
DECLARE
  role_name text;
BEGIN
  FOREACH role_name IN ARRAY ARRAY['facestream_reader', 'facestream_worker', 'facestream_operator', 'facestream_console'] LOOP
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
      EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
    END IF;
    EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA facestream FROM %I', role_name);
    EXECUTE format('GRANT USAGE ON SCHEMA facestream TO %I', role_name);
    -- Reads everything: lists, searches and explains.
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA facestream TO %I', role_name);
  END LOOP;
END
$$;

-- A worker remembers, and removes what has expired. It enrols nobody, removes nobody, and makes no tables.
GRANT INSERT, UPDATE, DELETE
  ON facestream.sightings, facestream.unknowns, facestream.tallies, facestream.batches, facestream.followers
  TO facestream_worker;
GRANT INSERT ON facestream.erasures TO facestream_worker;
GRANT UPDATE ON facestream.newest TO facestream_worker;
GRANT UPDATE, DELETE ON facestream.denials TO facestream_worker;
-- Whoever got two ids while the database was away is one person again; only an operator may undo that.
GRANT INSERT, DELETE ON facestream.regroupings TO facestream_worker;

-- Where the database has the extension pgvector: templates that the server compares by itself.
DO $$
BEGIN
  IF to_regclass('facestream.half_templates') IS NOT NULL THEN
    GRANT INSERT ON facestream.half_templates TO facestream_worker;
  END IF;
END
$$;

-- An operator does all that, and changes who is known: enrols, removes, renames, merges. No tables either.
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA facestream TO facestream_operator;
REVOKE INSERT, UPDATE, DELETE ON facestream.facestream_layout FROM facestream_operator;

-- The console changes people as an operator does, and keeps accounts. It reads no cameras and delivers no batches of
-- sightings. Among the followers it says that it has carried out an erasure.
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA facestream TO facestream_console;
REVOKE INSERT, UPDATE, DELETE ON facestream.facestream_layout, facestream.batches
  FROM facestream_console;

-- Who may log in to the console, and by what, is nobody's business but the console's.
DO $$
DECLARE
  name text;
BEGIN
  FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'facestream' AND tablename LIKE 'console\_%' LOOP
    EXECUTE format('REVOKE ALL ON facestream.%I FROM facestream_reader, facestream_worker, facestream_operator', name);
  END LOOP;
END
$$;

-- Except what an erasure needs: nobody may be named by what waits to be told, or by a rule.
GRANT SELECT, DELETE ON facestream.console_alerts, facestream.console_replies TO facestream_operator;
GRANT SELECT, UPDATE, DELETE ON facestream.console_rules TO facestream_operator;
