-- The images that the inventory still keeps, with the names of our columns.
-- NULL leaves a field as it is. An empty text must be written as the token: '<empty>'.
SELECT
  image_id AS uuid,
  team || '-' || title AS name,
  os AS platform,
  coalesce(note, '<empty>') AS description
FROM machine_image
WHERE retired = 0
ORDER BY image_id;
