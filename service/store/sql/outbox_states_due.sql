-- Jobs whose state changed after their last event, each once that event is published. $1 limit
SELECT d.job_id, d.at FROM state_due d JOIN job j USING (job_id)
WHERE NOT EXISTS (SELECT 1 FROM event e LEFT JOIN checkpoint h USING (partition)
                  WHERE e.job_id = d.job_id AND e.position > coalesce(h.position, 0))
ORDER BY d.at LIMIT $1
