import java.nio.charset.StandardCharsets;
import java.util.Base64;
import java.util.Scanner;
import java.util.regex.Pattern;

/** Answers each line of standard input, a pattern and a text in Base64, with whether the pattern matches all of the text. */
class Match {
	public static void main(String[] args) {
		for (var in = new Scanner(System.in); in.hasNextLine();) {
			var fields = in.nextLine().split(" ", -1);
			System.out.println(Pattern.compile(text(fields[0])).matcher(text(fields[1])).matches());
		}
	}

	static String text(String base64) {
		return new String(Base64.getDecoder().decode(base64), StandardCharsets.UTF_8);
	}
}
