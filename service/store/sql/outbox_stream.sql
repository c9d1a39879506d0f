-- $1 topic
SELECT topic, id, partitions FROM stream WHERE topic = $1
