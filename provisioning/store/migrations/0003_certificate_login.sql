-- Products whose devices log in with a certificate, and not without one.

ALTER TABLE product ADD COLUMN certificate_login boolean NOT NULL DEFAULT false;
