-- What stands as {model_id} in the adapter's paths. Where it is the model, a net keeps one app of each.
ALTER TABLE net ADD COLUMN path_id text NOT NULL DEFAULT 'attempt' CHECK (path_id IN ('attempt', 'model'));
UPDATE net SET path_id = 'model' WHERE name IN (
    SELECT n ->> 'name' FROM registry, jsonb_array_elements(coalesce(document::jsonb -> 'nets', '[]')) n
    WHERE n ->> 'path_id' = 'model');
