import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.sql.DriverManager;
import java.sql.SQLException;
import org.sqlite.SQLiteConfig;

public class Notes {
    public static void main(String[] args) throws SQLException {
        String url = System.getenv("REPLICA_URL");

        SQLiteConfig config = new SQLiteConfig();
        config.enableLoadExtension(true);
        try (var db = config.createConnection("jdbc:sqlite:notes.db"); var sql = db.createStatement()) {
            sql.execute("SELECT load_extension('./dist/liblitestream')");

            sql.execute("SELECT litestream_replicate('" + url + "')");
            sql.execute("CREATE TABLE IF NOT EXISTS note(text)");
            sql.execute("INSERT INTO note VALUES ('milk'), ('bread')");
            System.out.println("shipped " + sql.executeQuery("SELECT litestream_sync()").getString(1));
        }

        String parameter = URLEncoder.encode(url, StandardCharsets.UTF_8);
        String uri = "jdbc:sqlite:file:notes?vfs=litestream&replica=" + parameter;
        try (var replica = DriverManager.getConnection(uri); var sql = replica.createStatement()) {
            var notes = sql.executeQuery("SELECT text FROM note");
            while (notes.next()) {
                System.out.println(notes.getString("text"));
            }
            System.out.println("replica at " + sql.executeQuery("SELECT litestream_txid()").getString(1));
        }
    }
}
