-- The chart of accounts, as wallet/chart.py has it (a test compares the two). It stands here as well,
-- so that nobody who may post can open an account with other properties than its kind's.
CREATE OR REPLACE FUNCTION chart()
RETURNS TABLE (kind text, normal_side text, has_floor boolean, buffered boolean)
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS
$$
    VALUES
        ('CUSTOMER_WALLET', 'credit', true, false),
        ('MERCHANT_PENDING', 'credit', true, true),
        ('MERCHANT_AVAILABLE', 'credit', true, false),
        ('MERCHANT_FROZEN', 'credit', true, false),
        ('MERCHANT_DEBT', 'debit', false, false),
        ('FEES', 'credit', true, true),
        ('DISPUTES', 'credit', true, false),
        ('DISPUTE_FEES', 'credit', true, true),
        ('DISPUTE_LOSS', 'debit', false, true),
        ('REFUNDS_IN_FLIGHT', 'credit', true, false),
        ('PAYOUTS_IN_FLIGHT', 'credit', true, false),
        ('SUSPENSE', 'credit', true, true),
        ('CHANNEL_CLEARING', 'debit', false, true)
$$;
GRANT EXECUTE ON FUNCTION chart() TO purser_app, purser_poster, purser_reader;
